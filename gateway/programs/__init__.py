"""The program language: rules of grid programs as data, in `config/programs/*.yaml`."""
