"""Train one run, or with -m a whole sweep.

    python train.py routing=token_top2 model=nano run.seed=1    one run, in runs/KEY
    python train.py -m +sweep=first_look                        all runs of sweeps/first_look.yaml that are missing
    python train.py --cfg job routing=dense                     print the configuration and stop
"""

import sys

import hydra
from omegaconf import DictConfig

from moe_study.launch import entry


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> str | None:
    return entry.task(config)


if __name__ == "__main__":
    sys.exit(entry.start(main))
