"""Utilisation, power, clocks and temperature, sampled from outside while equal calls run."""
