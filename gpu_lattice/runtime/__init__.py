"""Services for all parts of the package: threads, interrupts, files, a cache, checks of arguments."""
