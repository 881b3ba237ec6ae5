"""Simulated timings of two equal engines on a machine that drifts: what the interval of a ratio is checked with."""

import numpy as np

from anatomy_export.bench.stats import paired_ratio, unpaired_ratio


def drifting_pair(
    generator: np.random.Generator, rounds: int, *, interleaved: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds (rounds,) of each engine: a random walk and a wave as drift, noise, one call in twenty an outlier.

    Interleaved, both run once a round in random order; otherwise one runs all its calls before the other starts.
    """
    calls = 2 * rounds
    wave = 0.1 * np.sin(np.arange(calls) / generator.uniform(5, 50) + generator.uniform(0, 6))
    drift = generator.normal(0, 0.01, calls).cumsum() + wave
    noise = generator.normal(0, 0.03, calls)
    noise += np.where(generator.random(calls) < 0.05, generator.exponential(0.3, calls), 0)
    times = 0.01 * np.exp(drift + noise)
    if not interleaved:
        return times[:rounds], times[rounds:]
    pairs = times.reshape(rounds, 2)
    first = generator.integers(0, 2, rounds)
    return pairs[np.arange(rounds), first], pairs[np.arange(rounds), 1 - first]


def interval_coverage(
    *, rounds: int, runs: int, interleaved: bool = True, launches: int = 1, launch_effect: float = 0.0, seed: int = 2024
) -> float:
    """Share of `runs` simulated measurements whose 95 % interval contains the true ratio, 1; at least 10 rounds.

    With `launches` above 1 there are so many times `rounds`, and in each launch one engine's times are off by a factor
    of its own, log-normal with standard deviation `launch_effect`.
    """
    generator = np.random.default_rng(seed)
    inside = 0
    for _ in range(runs):
        pairs = [drifting_pair(generator, rounds, interleaved=interleaved) for _ in range(launches)]
        effects = np.repeat(np.exp(generator.normal(0, launch_effect, launches)), rounds)
        first, second = (np.concatenate(times) for times in zip(*pairs, strict=True))
        labels = np.repeat(np.arange(launches), rounds)
        bounds = paired_ratio(first.tolist(), (second * effects).tolist(), launches=labels.tolist()).bounds
        assert bounds is not None
        inside += bounds[0] <= 1 <= bounds[1]
    return inside / runs


def compare_coverage(
    *, rounds: int, runs: int, launches: tuple[int, int], launch_effect: float, seed: int = 2024
) -> float:
    """Share of `runs` simulated comparisons of two separate runs whose 95 % interval contains the true ratio, 1.

    Each run has its number of `launches` of so many `rounds`; each launch drifts on its own, and its times are off by a
    factor of its own, log-normal with standard deviation `launch_effect`.
    """
    generator = np.random.default_rng(seed)

    def run(count: int) -> tuple[np.ndarray, np.ndarray]:
        effects = np.exp(generator.normal(0, launch_effect, count))
        times = [effect * drifting_pair(generator, rounds)[0] for effect in effects]
        return np.concatenate(times), np.repeat(np.arange(count), rounds)

    inside = 0
    for _ in range(runs):
        (first, first_launches), (second, second_launches) = (run(count) for count in launches)
        bounds = unpaired_ratio(
            first.tolist(),
            second.tolist(),
            reference_launches=first_launches.tolist(),
            launches=second_launches.tolist(),
        ).bounds
        assert bounds is not None
        inside += bounds[0] <= 1 <= bounds[1]
    return inside / runs
