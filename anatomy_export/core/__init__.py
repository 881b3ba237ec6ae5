"""What every room needs and none owns: errors, files, locks, progress, the cache, the operating system."""
