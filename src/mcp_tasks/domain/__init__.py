"""What a task is: pure values and the functions between them. No I/O, no clock, no wire."""
