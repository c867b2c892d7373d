"""Views: the lattice of a text as a table or a picture, and what alpha does to a corpus."""
