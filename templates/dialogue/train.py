"""Train ES4R on dialogues of your own; README.md says how."""

import sys

from prepare import prepare

from es4r_toolkit.training import run_recipe

if __name__ == "__main__":
    run_recipe(sys.argv[1:], steps=[prepare])
