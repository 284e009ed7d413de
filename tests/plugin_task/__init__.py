"""A package of a third party, as the tests install it: nothing here is known to the project."""
