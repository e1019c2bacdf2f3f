"""Pure, synchronous, deterministic rules; numpy and the standard library only; `now` is an argument."""
