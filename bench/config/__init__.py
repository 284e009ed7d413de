"""Configurations: YAML to validated models, to cells. See ``docs/configuration.md``."""

from bench.config.errors import ConfigError
from bench.config.load import Config, load_config, parse_config
from bench.config.plan import Plan, make_plan

__all__ = ["Config", "ConfigError", "Plan", "load_config", "make_plan", "parse_config"]
