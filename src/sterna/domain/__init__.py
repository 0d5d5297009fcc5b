"""Pure values and rules: no I/O, no clock, no logging, no await. Everything above may import this."""
