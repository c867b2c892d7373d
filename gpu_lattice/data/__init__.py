"""The model and the corpus that ship with the package; README.md beside this file says where the texts come from."""
