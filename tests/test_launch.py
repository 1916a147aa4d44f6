"""The launch scripts, with stand-ins for gcloud and Slurm that write down how they are called."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / 'launch'
RUN = 'pt2tt run --out runs/it --gin.Tune.methods="(\'prompt\',)"'

GCLOUD = r"""#!/usr/bin/env bash
echo "gcloud $*" | tr '\n' ' ' >> "$LOG"; echo >> "$LOG"
case "$*" in
  *describe*) cat "$LOG.made" ;;
  *"tpu-vm create"*) echo READY > "$LOG.made" ;;
  *"tpu-vm delete"*) rm "$LOG.made" ;;
  *"storage cat"*) cat "$LOG.done" ;;
  *"storage cp -"*) cat > "$LOG.done" ;;
  *"$LOSE"*)  # the machines are taken away, once
    if [ -n "$LOSE" ] && [ ! -e "$LOG.lost" ]; then
      touch "$LOG.lost"
      echo PREEMPTED > "$LOG.made"
      exit 1
    fi ;;
esac
"""


@pytest.fixture
def place(tmp_path) -> dict[str, str]:
    """An environment in which the stand-ins come first; they log to LOG."""
    for name, text in {
        'gcloud': GCLOUD,
        'sleep': '#!/usr/bin/env bash\nexit 0\n',
        'srun': '#!/usr/bin/env bash\necho "srun $*" >> "$LOG"; exec /bin/sleep 20\n',
        'scancel': '#!/usr/bin/env bash\necho "scancel $*" >> "$LOG"\n',
        'scontrol': '#!/usr/bin/env bash\necho "scontrol $*" >> "$LOG"\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    return {**os.environ, 'PATH': path, 'LOG': str(tmp_path / 'log'), 'ZONE': 'there', 'LOSE': ''}


def calls(place: dict[str, str]) -> list[str]:
    return Path(place['LOG']).read_text().splitlines()


def launched(script: str, place: dict[str, str], *arguments: str) -> None:
    subprocess.run([LAUNCH / script, *arguments], env=place, check=True, timeout=60)


def kinds(place: dict[str, str]) -> list[str]:
    words = (
        'create',
        'delete',
        'scp',
        'uv venv',
        'gcsfuse',
        'tail',
        'flock',
        'pt2tt run',
        'describe',
    )
    return [next((w for w in words if w in call), 'storage') for call in calls(place)]


def test_tpu_vm(place):
    launched('tpu_vm.sh', place, 'name', RUN)
    launched('tpu_vm.sh', place, 'name', RUN)
    first = ['describe', 'create', 'scp', 'uv venv', 'flock', 'tail']
    assert kinds(place) == [*first, *(kind for kind in first if kind != 'create')]
    command = next(call for call in calls(place) if 'flock' in call)
    start = command.partition('--command=')[2].strip().removesuffix('>> run.log 2>&1 &')
    quoted = start.partition('bash -c ')[2]
    shown = subprocess.run(['bash', '-c', f'printf %s {quoted}'], capture_output=True, text=True)
    assert shown.stdout == f'source .venv/bin/activate && {RUN}'


def test_tpu_pod_is_made_again_when_it_is_taken_away(place):
    place |= {'BUCKET': 'bucket', 'LOSE': 'pt2tt run'}
    launched('tpu_pod.sh', place, 'name', RUN)
    once = ['create', 'scp', 'uv venv', 'gcsfuse', 'pt2tt run']
    found = [kind for kind in kinds(place) if kind not in ('describe', 'storage')]
    assert found == [*once, 'delete', *once, 'delete']
    assert all('--spot' in call for call in calls(place) if 'create' in call)
    assert Path(place['LOG'] + '.done').read_text() == RUN


def test_slurm_job_saves_and_is_queued_again(place, tmp_path):
    (tmp_path / 'venv' / 'bin').mkdir(parents=True)
    (tmp_path / 'venv' / 'bin' / 'activate').touch()
    place |= {'VENV': str(tmp_path / 'venv'), 'SLURM_JOB_ID': '17'}
    job = subprocess.Popen([LAUNCH / 'slurm.sh', 'pt2tt', 'run', '--distributed'], env=place)
    try:
        for _ in range(100):
            if Path(place['LOG']).exists():
                break
            time.sleep(0.1)
        job.send_signal(signal.SIGUSR1)
        job.wait(timeout=20)
    finally:
        job.kill()
    assert calls(place) == [
        'srun --kill-on-bad-exit=1 pt2tt run --distributed',
        'scancel --signal=TERM 17.0',
        'scontrol requeue 17',
    ]
