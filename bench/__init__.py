"""What durable tasks cost, measured against the same thing without them: `python -m bench`.

Every figure that counts is a ratio of two things measured in one run, in turns, so that a busy or a
slow machine moves both. The server runs in its own process and tells its own CPU time; the client
is a raw one that costs next to nothing.
"""
