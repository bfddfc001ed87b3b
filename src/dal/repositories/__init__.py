"""The typed repositories, each written once against the waist."""
