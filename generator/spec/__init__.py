"""YAML under specs/ -> validated, frozen models. Standard library, pyyaml and pydantic only."""
