"""Train ES4R on AffectProbe: python recipes/AffectProbe/train.py recipes/AffectProbe/hparams/train.yaml"""

import sys

from prepare import prepare
from pretrain import pretrain

from es4r_toolkit.training import run_recipe

if __name__ == "__main__":
    run_recipe(sys.argv[1:], steps=[prepare, pretrain])
