"""Meshes of several devices against one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pt2tt_jax import sharding
from pt2tt_jax.errors import UserError


def test_too_few_devices():
    with pytest.raises(UserError, match=r'2 x 3 needs 6 devices; there are 1'):
        sharding.mesh(2, 3)


def test_meshes_give_the_result_of_one_device(tmp_path):
    """On 8 virtual devices, in a process of their own."""
    script = Path(__file__).with_name('eight_devices.py')
    flags = os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
    result = subprocess.run(
        [sys.executable, script, tmp_path],
        env=os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found['devices'] == 8
    assert 'does not divide among 8 devices' in found['error']
    assert set(found['split']) >= {'encoder/layers_0/mlp/wo/kernel', 'token_embedder/embedding'}
    for shape, prompt in found['prompts'].items():
        np.testing.assert_allclose(prompt, found['prompts']['1x1'], atol=1e-5, err_msg=shape)
