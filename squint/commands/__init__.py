"""One file per group of commands: `add` describes their arguments, the other functions carry them out.

Whatever is heavy is imported inside the function that needs it, so that `squint --help` answers at once and
`squint serve` loads no measuring code.
"""
