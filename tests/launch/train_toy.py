"""train.py with a job of toy.py in place of the training: python train_toy.py JOB KEY=VALUE ..."""

import sys

from moe_study.launch import entry
from tests.launch import toy

if __name__ == "__main__":
    sys.exit(entry.main(toy.job(sys.argv.pop(1))))
