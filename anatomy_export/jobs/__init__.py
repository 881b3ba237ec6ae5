"""What a command does from start to end: each module calls the rooms below in order."""
