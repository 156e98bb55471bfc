"""Other people's servers, each serving one directory, and the checks that they all go through."""
