"""Memory cores and collectors that others might write: right ones, and wrong ones, an edit away."""

import numpy as np
from gymnasium.vector import AutoresetMode

WIDTH, SIZE = 3, 5
RNG = np.random.default_rng(0)
W, A, V = RNG.standard_normal((WIDTH, SIZE)), RNG.random(SIZE), RNG.standard_normal((SIZE, 2))


class Core:
    """h' = tanh(a h + W u), y = V h', with all that may go wrong as a method of its own."""

    def initial_state(self, batch):
        return np.zeros((batch, SIZE))

    def forget(self, reset, state):
        return np.where(reset[:, None], 0, state)

    def update(self, u, state):
        new = np.tanh(A.astype(u.dtype) * state + u @ W.astype(u.dtype))
        return new @ V.astype(u.dtype), new

    def step(self, u, reset, state):
        return self.update(u, self.forget(reset, state))

    def sequence(self, u, reset, state):
        outputs = []
        for t in range(len(u)):
            y, state = self.sequence_step(t, u, reset, state)
            outputs.append(y)
        return np.stack(outputs), state

    def sequence_step(self, t, u, reset, state):
        return self.step(u[t], reset[t], state)

    def functions(self):
        return self.step, self.sequence, self.initial_state, WIDTH


class Nested(Core):
    """Its state is a dict of a tuple and a list, with the batch on several axes, and a counter."""

    def initial_state(self, batch):
        return {
            "h": (np.ones((1, batch, SIZE)), [np.zeros((SIZE, batch))]),
            "t": np.zeros(batch, int),
        }

    def step(self, u, reset, state):
        h, (g,) = state["h"]
        h, g = h[0], g.T
        h = np.where(reset[:, None], 1, h).astype(u.dtype)
        g = np.where(reset[:, None], 0, g).astype(u.dtype)
        t = np.where(reset, 0, state["t"]) + 1
        y, h = self.update(u, h)
        _, g = self.update(2 * u, g + h)
        return y + g[:, :2] / t[:, None].astype(u.dtype), {"h": (h[None], [g.T]), "t": t}


class Multiplies(Core):
    def forget(self, reset, state):
        return state * (1 - reset[:, None])


class IgnoresResets(Core):
    def sequence_step(self, t, u, reset, state):
        return self.step(u[t], np.zeros_like(reset[t]), state)


class StepIgnoresResets(Core):
    def step(self, u, reset, state):
        return self.update(u, state)


class ResetsLate(Core):
    def sequence_step(self, t, u, reset, state):
        return self.step(u[t], reset[t - 1] if t else np.zeros_like(reset[0]), state)


class ResetsEarly(Core):
    def sequence_step(self, t, u, reset, state):
        last = t == len(u) - 1
        return self.step(u[t], np.zeros_like(reset[0]) if last else reset[t + 1], state)


class ForgetsAfterwards(Core):
    def step(self, u, reset, state):
        y, state = self.update(u, state)
        return y, self.forget(reset, state)


class ResetsAllRows(Core):
    def sequence_step(self, t, u, reset, state):
        return self.step(u[t], np.full_like(reset[t], reset[t].any()), state)


class IgnoresState(Core):
    def sequence(self, u, reset, state):
        return super().sequence(u, reset, 0 * state)


class LosesState(Core):
    """Its last state is that before the last step."""

    def sequence(self, u, reset, state):
        y, last = super().sequence(u, reset, state)
        return y, last if len(u) == 1 else super().sequence(u[:-1], reset[:-1], state)[1]


class ReturnsFirstState(Core):
    def sequence(self, u, reset, state):
        return super().sequence(u, reset, state)[0], self.initial_state(len(state))


class LosesChunks(Core):
    def sequence_step(self, t, u, reset, state):
        return self.step(u[t], reset[t], 0 * state if t and t % 32 == 0 else state)


class MixesRows(Core):
    def update(self, u, state):
        return super().update(u - u.mean(axis=0), state)


class Backwards(Core):
    def sequence(self, u, reset, state):
        y, last = super().sequence(u[::-1], reset[::-1], state)
        return y[::-1], last


class WritesState(Core):
    def forget(self, reset, state):
        state[reset] = 0
        return state


class WritesInput(Core):
    def sequence(self, u, reset, state):
        u *= 0.5
        return super().sequence(2 * u, reset, state)


class Rounds(Core):
    """As in a lower precision."""

    def sequence(self, u, reset, state):
        y, last = super().sequence(u, reset, state)
        return y.astype(np.float16).astype(y.dtype), last


class WrongShape(Core):
    def sequence(self, u, reset, state):
        y, last = super().sequence(u, reset, state)
        return y.swapaxes(0, 1), last


WRONG_CORES = {  # words of the report: the core
    "multiplies the old state by zero instead of selecting: nan passes": Multiplies,
    "sequence_fn ignores resets": IgnoresResets,
    "step_fn ignores the reset flag": StepIgnoresResets,
    "sequence_fn resets one step late": ResetsLate,
    "sequence_fn resets one step early": ResetsEarly,
    "step_fn forgets after the step, not before it": ForgetsAfterwards,
    "sequence_fn resets all rows where one is reset": ResetsAllRows,
    "sequence_fn ignores the state that it is given": IgnoresState,
    "y of later steps": LosesState,
    "the second part does not begin with the first one's last state": ReturnsFirstState,
    "core/replay-T33": LosesChunks,
    "core/columns-30": MixesRows,
    "sequence_fn takes time backwards": Backwards,
    "writes into its argument state": WritesState,
    "sequence_fn writes into its argument u": WritesInput,
    "core/replay-T1-": Rounds,
    "the axes are in another order": WrongShape,
}


def collect(envs, network, length, rollouts, fault=""):
    """Keep rollouts as a recurrent PPO does; ``fault`` is one of WRONG_COLLECTORS, or none."""
    B, mode = envs.num_envs, envs.metadata["autoreset_mode"]
    same, following = mode == AutoresetMode.SAME_STEP, mode == AutoresetMode.NEXT_STEP
    none, obs = np.zeros(B, bool), envs.reset()[0]
    state, action, reset, dummy = network.initial_state(B), np.zeros(B, int), ~none, none
    begun = False
    names = "reset first previous_action valid values next_values".split()
    kept = {name: [] for name in (*names, "initial_state")}
    for t in range(length * rollouts):
        if t % length == 0:
            state = 0 * state if fault == "emptied" else state
            kept["initial_state"].append(0 * state if fault == "zero" else state)
        old = state
        shown = none if fault == "no flag" and begun else reset
        previous = action if fault == "leak" else np.where(reset, 0, action)
        fed = none if fault == "no reset" and begun else reset
        action, values, state = network.step(obs, previous, shown, fed, state)
        begun = True
        if fault == "late start" and t % length == 0:
            kept["initial_state"][-1] = state
        obs, _, terminated, truncated, infos = envs.step(action)
        done = terminated | truncated
        last = obs.copy()
        if same and fault != "lost":
            for i in np.flatnonzero(done):
                last[i] = infos["final_obs"][i]
        empty = done if fault in ("lost", "empty") and not following else none
        after = network.step(last, np.where(empty, 0, action), empty, empty, state)
        if fault == "moves" and t % length == length - 1:
            state = after[2]
        after = network.step(last, action, none, none, old)[1] if fault == "old" else after[1]
        worthless = done if fault == "cut" else none if fault == "goes on" else terminated
        row = (
            fed,
            shown,
            previous,
            ~dummy | (fault == "dummy"),
            values,
            np.where(worthless, 0, after),
        )
        for name, value in zip(names, row, strict=True):
            kept[name].append(value)
        if mode == AutoresetMode.DISABLED and done.any():
            obs = envs.reset(options={"reset_mask": done})[0]
        reset, dummy = (dummy, done) if following else (done, none)
        if fault == "early" and following:
            reset = done
    return {name: np.array(rows) for name, rows in kept.items()}


WRONG_COLLECTORS = {  # fault: words of the report
    "no reset": "resets are ignored",
    "early": "the step that only resets is taken for the first step of the episode",
    "lost": "the final observation is lost",
    "cut": "a truncation is treated as a termination",
    "goes on": "a termination is treated as a truncation",
    "dummy": "the step that only resets is learnt from",
    "zero": "the state at the rollout's start is zero",
    "late start": "the state at the rollout's start is that after its first step",
    "emptied": "the memory is emptied between rollouts",
    "moves": "looking at the value after a rollout moves the memory on",
    "old": "the next value is seen with the memory before the step, not after it",
    "leak": "the old episode's action leaks into the new one",
    "no flag": "the first-step flag is 0 after an automatic reset",
}
