"""One learner on one task until it reaches a target, in a process of its own: see versus.py.

    python experiments/versus_learners.py LEARNER TASK SEED TARGET MOST_STEPS MOST_SECONDS

It prints one JSON object. Seconds are CPU time of the process from its start, so that Python and
imports count. All learners have rollouts of the same size and the numbers of minis5's preset for
the task, as far as they have them. After each update they ask whether the mean return of the
rollout's episodes has reached TARGET.

Leaves out: what comes before and after (versus.py). Tests: tests/test_versus.py.
"""

import json
import sys
import time

from minis5.envs.registry import make_vec
from minis5.nn.s5_core import S5Config
from minis5.rl.agent import ActorCritic
from minis5.rl.ppo import PPO
from minis5.run.presets import equal_units, resolve

INSTALL = "pip install sb3-contrib torch"


class Meter:
    """Asked after each update: remembers the best return, and says when to stop.

    Parameters
    ----------
    target : float
        Mean return of a rollout.
    most_seconds : float
        CPU time of learning.
    """

    def __init__(self, target, most_seconds):
        self.target, self.most_seconds = target, most_seconds
        self.steps, self.best, self.reached, self.curve = 0, float("-inf"), False, []
        self.began = time.process_time()

    def __call__(self, steps, mean):
        """Take the steps so far and the return of the last rollout; return whether to stop."""
        self.steps, self.seconds = steps, time.process_time()
        self.learning = self.seconds - self.began
        if mean == mean:  # not NaN: episodes have ended
            self.best = max(self.best, mean)
            self.curve.append((steps, round(self.seconds, 2), round(mean, 4)))
        self.reached = mean >= self.target
        return self.reached or self.learning >= self.most_seconds


def minis5_learner(core):
    """Return a learner of minis5's with this core."""

    def learn(task, seed, most_steps, meter):
        agent_config, ppo_config, _ = resolve(task, core=core)
        envs = make_vec(task, ppo_config.num_envs, seed)
        spaces = envs.single_observation_space, envs.single_action_space
        agent = ActorCritic(*spaces, agent_config, seed)
        ppo = PPO(agent, envs, ppo_config, seed=seed)
        ppo.learn(most_steps, lambda row: meter(row["step"], row["return"]))
        return int(agent.parameter_vector.size)

    return learn


def torch_learner(task, seed, most_steps, meter):
    """Learn with the LSTM in torch_lstm.py, which has as many parameters as the S5 core."""
    torch = peer("torch")
    from torch_lstm import learn

    torch.set_num_threads(1)
    agent_config, ppo_config, _ = resolve(task)
    hidden = equal_units("lstm", S5Config(), agent_config.encoder[-1])
    envs = make_vec(task, ppo_config.num_envs, seed)
    return learn(envs, (agent_config, ppo_config), hidden, seed, most_steps, meter)


def sb3_learner(task, seed, most_steps, meter):
    """Learn with RecurrentPPO of sb3-contrib, each environment behind gymnasium.make."""
    torch, sb3 = peer("torch"), peer("sb3_contrib")
    import gymnasium
    import numpy as np
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    class Ask(BaseCallback):
        """Ask the meter once the update after a rollout is done, when the next rollout begins."""

        ended, stop = (), False

        def _on_rollout_start(self):
            if self.num_timesteps:
                mean = float(np.mean(self.ended)) if self.ended else float("nan")
                self.stop = meter(self.num_timesteps, mean)
            self.ended = []

        def _on_step(self):
            infos = self.locals["infos"]
            self.ended += [info["episode"]["r"] for info in infos if "episode" in info]
            return not self.stop

        def _on_training_end(self):
            if not self.stop:
                self._on_rollout_start()

    torch.set_num_threads(1)
    agent_config, c, _ = resolve(task)
    hidden = equal_units("lstm", S5Config(), agent_config.encoder[-1])
    rows, (entry, given) = c.num_envs, entry_of(task)

    def one():
        return Monitor(gymnasium.make(entry, disable_env_checker=True, **given))

    envs = DummyVecEnv([one] * rows)
    model = sb3.RecurrentPPO(
        "MlpLstmPolicy",
        envs,
        learning_rate=(lambda left: c.lr * left) if c.anneal_lr else c.lr,
        n_steps=c.unroll,
        batch_size=rows * c.unroll // c.minibatches,
        n_epochs=c.epochs,
        gamma=c.gamma,
        gae_lambda=c.gae_lambda,
        clip_range=c.clip,
        ent_coef=c.entropy_coef,
        max_grad_norm=c.max_grad_norm,
        seed=seed,
        device="cpu",
        vf_coef=c.value_coef,
        policy_kwargs={
            "lstm_hidden_size": hidden,
            "net_arch": list(agent_config.heads),
            "optimizer_kwargs": {"eps": c.adam_eps},
        },
    )
    model.learn(most_steps, Ask())
    return sum(parameter.numel() for parameter in model.policy.parameters())


def entry_of(task):
    """Return a task's id with Gymnasium and its options there."""
    family, _, length = task.partition("-")
    return f"minis5/{family}-v0", {"memory_length": int(length)} if length else {}


def peer(module):
    """Import another library, or say how to install it."""
    try:
        return __import__(module)
    except ImportError as error:
        sys.exit(f"versus: {module} is missing ({error}); {INSTALL}")


LEARNERS = {
    "minis5-s5": minis5_learner("s5"),
    "minis5-gru": minis5_learner("gru"),
    "torch-lstm": torch_learner,
    "sb3-recurrent": sb3_learner,
}


def main(argv):
    """Run one learner; print what it found."""
    learner, task, *numbers = argv
    seed, target, most_steps, most_seconds = map(float, numbers)
    meter = Meter(target, most_seconds)
    size = LEARNERS[learner](task, int(seed), int(most_steps), meter)
    found = {"reached": meter.reached, "steps": meter.steps, "parameters": size}
    found |= {"seconds": round(meter.seconds, 2), "learning_seconds": round(meter.learning, 2)}
    found |= {"best_return": round(meter.best, 4), "curve": meter.curve}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
