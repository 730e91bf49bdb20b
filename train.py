"""Train one run, or with -m a whole sweep.

    python train.py routing=token_top2 model=nano run.seed=1    one run, in runs/KEY
    python train.py -m +sweep=first_look                        all runs of sweeps/first_look.yaml that are missing
    python train.py --cfg job routing=dense                     print the configuration and stop

Where the package is installed and no clone is at hand, `moe-study train` does the same.
"""

import sys

from moe_study.launch import entry

if __name__ == "__main__":
    sys.exit(entry.main())
