"""python -m es4r_toolkit.cli."""

from es4r_toolkit.cli import main

if __name__ == "__main__":
    main()
