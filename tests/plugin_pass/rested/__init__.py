"""One more call after a rest: is a rested device faster?"""
