"""The command line: ``app.py`` knows the verbs; each verb is a module, imported when it is used."""
