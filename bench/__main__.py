"""`python -m bench` is `peftmark`."""

from bench.cli import main

if __name__ == "__main__":
    main()
