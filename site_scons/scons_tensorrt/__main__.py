"""`python -m scons_tensorrt`. To add a command, write its module in cli/ and list it in cli/__init__.py."""


def main() -> None:
    """Run the command, and exit. All commands are imported first: Ctrl-C prints no stack then either."""
    try:
        from .cli import run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
