"""The command line: its output, its options, and one line with exit code 2 for every mistake."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import CHAIN, error_of

import minis5
from minis5.run import train_command
from minis5.run.cli import main
from minis5.run.commands import FUNCTIONS
from minis5.run.other_names import OTHERWISE, SAME
from minis5.run.presets import fields, resolve
from minis5.run.progress import read_progress
from minis5.run.summaries import SUMMARIES

LEVELS = ("Easy", "Medium", "Hard")


def test_version_and_help(capsys):
    for arguments, text in (
        ("--version", f"minis5 {minis5.__version__}\n"),
        ("--help", "train an agent on an environment"),
        ("train --help", "--gae-lambda"),
        ("train --core none --help", "--gae-lambda"),
        ("eval --help", "--stochastic"),
        ("plot --help", "--out"),
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments.split())
        assert end.value.code == 0 and text in capsys.readouterr().out


def test_help_imports_no_large_library():
    """Numba, SciPy and Gymnasium take most of a second."""
    code = """
import sys
sys.modules.update(numba=None, scipy=None, gymnasium=None)
from minis5.run.cli import main
main(["--help"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "verify" in done.stdout, done.stderr


def test_every_command_has_a_summary():
    assert list(FUNCTIONS) == list(SUMMARIES)


@pytest.mark.parametrize(
    ("arguments", "env", "preset", "core"),
    [
        ("", "", "laptop", "s5"),
        ("Acrobot-v1", "Acrobot-v1", "laptop", "s5"),
        ("RepeatPreviousHard", "RepeatPreviousHard", "laptop", "s5"),
        ("--core gru --preset paper RepeatPreviousHard", "RepeatPreviousHard", "paper", "gru"),
        ("MemoryChain-256", "MemoryChain-256", "laptop", "s5"),
    ],
)
def test_help_shows_the_values_that_hold(capsys, monkeypatch, arguments, env, preset, core):
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken at a hyphen
    with pytest.raises(SystemExit):
        main(["train", *arguments.split(), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    *configs, steps = resolve(env, preset, core)
    values = vars(configs[1]) | vars(configs[0]) | vars(configs[0].core_config)
    for name, (_, default, about) in fields(core).items():
        several = isinstance(default, tuple)
        value = ",".join(map(str, values[name])) if several else str(values[name]).lower()
        assert f"{about} [{value}]" in text, name
    assert f"whole updates [{steps:,}]" in text
    common, others = text.split("common hyper-parameters:")[1].split("all other hyper-parameters:")
    assert "--lr X" in common and "--adam-eps X" in others


def test_hyper_parameters_follow_the_core(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--core", "none", "--help"])
    assert "--ssm-size" not in capsys.readouterr().out
    assert "unknown argument --ssm-size" in error_of(
        capsys, "train MemoryChain --core none --ssm-size 8"
    )


def test_names_of_other_libraries_lead_to_options_that_there_are(capsys):
    options = set()
    for core in ("s5", "gru"):
        with pytest.raises(SystemExit):
            main(["train", "--core", core, "--help"])
        options |= set(re.findall(r"^  --([\w-]+)", capsys.readouterr().out, re.MULTILINE))
    assert set(SAME.values()) <= options and not options & set(SAME)
    named = re.findall(r"--([\w-]+)", " ".join(OTHERWISE.values()))
    assert set(named) <= options and not set(OTHERWISE) & set(SAME)


def test_train_prints_progress_and_result(tmp_path, capsys):
    assert main(f"{CHAIN} --steps 6.4e2 --out {tmp_path / 'run'}".split()) == 0
    captured = capsys.readouterr()
    assert "640 of 640 steps" in captured.err and "steps/s" in captured.err and "KL" in captured.err
    assert captured.out.startswith("MemoryChain: mean return ") and captured.out.endswith(
        f"{tmp_path / 'run'}\n"
    )


def test_settings_of_zero_arrive(tmp_path, capsys):
    zeros = "--target-return 0 --entropy-coef 0 --seed 0"
    assert main(f"{CHAIN} --steps 64e9 {zeros} --out {tmp_path / 'run'}".split()) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["target_return"] == 0


def test_hyper_parameters_arrive(runs):
    config = json.loads((runs / "c" / "config.json").read_text())
    assert (
        config["ppo"]["lr"] == 1e-4
        and config["ppo"]["anneal_lr"] is True
        and config["ppo"]["unroll"] == 8
    )
    assert config["agent"]["heads"] == [8, 8] and config["agent"]["core_config"]["ssm_size"] == 8
    assert config["env_options"] == {"memory_length": 3}
    assert read_progress(runs / "c" / "progress.csv")[-1]["lr"] < 1e-4


def test_eval_json_is_one_object(runs, capsys):
    assert main(f"eval {runs / 'a'} --episodes 20 --json".split()) == 0
    result = json.loads(capsys.readouterr().out)
    names = ["mean_return", "std_return", "min_return", "max_return", "episodes", "unfinished"]
    assert list(result) == names
    summary = json.loads((runs / "a" / "summary.json").read_text())
    # the same fresh episodes as at the end of training
    assert result == {name: summary[name] for name in result}
    assert main(f"eval {runs / 'a'} --episodes 20 --json --seed 5 --stochastic".split()) == 0
    assert json.loads(capsys.readouterr().out) != result


def test_eval_for_people(runs, capsys):
    assert (
        main(["eval", str(runs / "a"), "--episodes", "3", "--env-option", "memory_length=5"]) == 0
    )
    assert "mean_return" in capsys.readouterr().out


def test_several_seeds(tmp_path, capsys):
    assert main(f"{CHAIN} --steps 128 --seeds 0-1,5 --out {tmp_path / 'a'}".split()) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["seed0", "seed1", "seed5"]
    returns = [
        json.loads((tmp_path / "a" / f"seed{seed}" / "summary.json").read_text())["mean_return"]
        for seed in (0, 1, 5)
    ]
    error = np.std(returns, ddof=1) / np.sqrt(3)
    assert last == (
        f"MemoryChain, 3 seeds: mean return {np.mean(returns):.3f} ± {error:.3f} (standard "
        f"error), worst {min(returns):.3f}, best {max(returns):.3f}"
    )


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "required: COMMAND"),
        ("trian", "unknown COMMAND 'trian'; did you mean train?"),
        ("train", "ENV is missing"),
        ("train MemoryChian --out x", "did you mean MemoryChain"),
        (
            "train MemoryChain --sssm-size 8",
            "unknown argument --sssm-size; did you mean --ssm-size?",
        ),
        (
            "train MemoryChain --gae_lambda=8",
            "unknown argument --gae_lambda; did you mean --gae-lambda?",
        ),
        (
            "train MemoryChain --frobnicate",
            "unknown argument --frobnicate; minis5 train --help lists",
        ),
        ("train MemoryChain extra", "unknown argument extra"),
        ("train MemoryChain --total-timesteps 5", "--total-timesteps; here it is --steps"),
        ("train MemoryChain --batch_size=64", "unknown argument --batch_size; --minibatches says"),
        ("train MemoryChain --hidden 4", "unknown argument --hidden; --encoder and --heads are"),
        ("train MemoryChain --ssm-size many", "ssm_size: expected"),
        ("train MemoryChain --gamma 7", "gamma: expected"),
        ("train MemoryChain --core rnn", "core"),
        ("train MemoryChain --preset desktop", "preset"),
        ("train MemoryChain --steps few", "--steps: expected a count of at least 1, got 'few'"),
        ("train MemoryChain --steps 0", "--steps: expected a count of at least 1, got '0'"),
        ("train MemoryChain --seed 0 --seeds 0-1", "--seed, --seeds: expected one of them, got"),
        ("train --resume x --seeds 0-1", "--resume takes the run's own settings; leave out seeds"),
        ("train MemoryChain --seeds 4-0", "--seeds: expected seeds such as 0-4 or 0,2,5, got"),
        ("train MemoryChain --seeds 0,0", "--seeds: expected seeds such as 0-4 or 0,2,5, got"),
        ("train MemoryChain --seeds a", "--seeds: expected seeds such as 0-4 or 0,2,5, got"),
        ("train MemoryChain --seed -1", "--seed: expected an integer of at least 0, got '-1'"),
        ("train MemoryChain --precision tf32", "precision: expected 'float32' with device='cpu'"),
        (
            "train MemoryChain --precision fp8",
            "precision: expected one of 'float32', 'tf32', 'bf16', got 'fp8'",
        ),
        ("train MemoryChain --env-option 3", "--env-option: expected name=value, got '3'"),
        ("train MemoryChain --env-option length=3", "length: "),
        ("train MemoryChain --out /dev/null/run", "cannot write to the folder /dev/null/run"),
        ("train --resume nowhere", "nowhere: no run of minis5 train there"),
        (
            "train --resume nowhere --lr 1 --seed 3",
            "--resume takes the run's own settings; leave out",
        ),
        ("eval nowhere", "nowhere: no run of minis5 train there"),
        ("eval . --episodes 0", "--episodes: expected a count of at least 1"),
        ("plot nowhere", "nowhere is no run of minis5 train"),
    ],
)
def test_mistakes(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert message in error_of(capsys, command)
    assert not any(tmp_path.iterdir())


def test_damaged_agent(runs, tmp_path, capsys):
    (tmp_path / "config.json").write_bytes((runs / "a" / "config.json").read_bytes())
    assert "no file" in error_of(capsys, ["eval", str(tmp_path)])
    (tmp_path / "agent.npz").write_bytes((runs / "a" / "agent.npz").read_bytes()[:3000])
    assert "damaged or cut short" in error_of(capsys, ["eval", str(tmp_path)])


def test_our_own_faults_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("minis5.run.envs_command.table", lambda: [{}])
    with pytest.raises(KeyError):
        main(["envs"])


def test_as_a_program():
    result = subprocess.run(
        [sys.executable, "-m", "minis5", "eval", "nowhere"], capture_output=True, text=True
    )
    assert (
        result.returncode == 2
        and result.stdout == ""
        and result.stderr.startswith("minis5: error: nowhere")
    )


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("begun", ["numpy", "llvmlite"])
def test_ctrl_c_while_everything_is_imported(begun):
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "minis5", "envs"],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and begun not in maps.read_text():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130) and b"Traceback" not in errors


def test_importing_leaves_ctrl_c_to_other_programs():
    code = "import signal, minis5; print(signal.getsignal(2) is signal.default_int_handler)"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"True\n"


@pytest.mark.parametrize(
    ("sampled", "mean", "std", "told"),
    [
        (1.0, -0.04, 1.0, True),  # the same action over and over is not what training met
        (1.0, 0.95, 0.0, False),  # less than a tenth
        (-80.0, -100.0, 60.0, False),  # 3.3 standard errors
        (-80.0, -120.0, 60.0, True),
        (0.5, 0.9, 0.1, False),
        (None, 0.0, 0.0, False),  # no episode ended in training
    ],
)
def test_a_worse_likeliest_policy_is_told(capsys, sampled, mean, std, told):
    """Training shows sampled actions and the result the likeliest: a gap between them is named."""
    summary = {"env": "MemoryChain", "mean_return": mean, "std_return": std, "episodes": 100}
    summary |= {"steps": 10, "seconds": 1.0, "steps_per_second": 10.0, "folder": "runs/a"}
    train_command._tell_result(summary | {"training_return_last": sampled})
    shown = capsys.readouterr().out
    line = f"earned more, {sampled:.3f}; compare minis5 eval runs/a --stochastic" if told else "!"
    assert (line in shown) == told and ("earned more" in shown) == told
