"""``python -m bench.cli`` is ``bench``, where scripts are not on the PATH."""

from bench.cli.app import main

if __name__ == "__main__":
    main()
