"""Checkpoints and prompts of other programs, in and out: `pt2tt convert SOURCE TARGET`.

    weights            a T5 on disk, read one tensor at a time
    stores             files and arrays below a local folder or gs:// address, by TensorStore
    t5x_read           T5X checkpoints: the native layout and Orbax's
    t5x_shapes         the configuration of a T5, from the shapes of its parameters
    t5x_write          either layout, as T5X restores it
    huggingface_write  sharded safetensors with config.json
    tokenizers         the files of a vocabulary, which travel with a model
    folders            a target folder that appears whole or not at all
    verify             the target holds what the source held; logits before and after
    prompts            soft prompts: our files, .npy, T5X checkpoints
    peft_adapter       soft prompts: adapter folders of PEFT
    formats            which of these a path is
    command            the `pt2tt convert` command; `flags` are its flags

Free of T5X, TensorFlow and torch.
"""
