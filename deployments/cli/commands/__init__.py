"""One module a command of `ahc`. A command never imports another."""
