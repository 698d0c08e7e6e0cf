"""Train ES4R on EmpatheticDialogues:
python recipes/EmpatheticDialogues/train.py recipes/EmpatheticDialogues/hparams/train.yaml --data_folder=DATA
"""

import sys

from prepare import prepare

from es4r_toolkit.training import run_recipe

if __name__ == "__main__":
    run_recipe(sys.argv[1:], steps=[prepare])
