"""`python -m processors` is the same as `orchestrator`."""

from processors.cli import main

if __name__ == "__main__":
    main()
