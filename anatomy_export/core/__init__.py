"""What every part stands on: the operating system, signals, and who is at work on an output."""
