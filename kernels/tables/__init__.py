"""What kernels read of a vocabulary: a trie, an automaton and a table of cuts, made on the host."""
