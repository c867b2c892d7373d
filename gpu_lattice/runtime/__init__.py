"""What any part of the package may need of the machine: threads, interrupts, files, a cache, checks of arguments."""
