"""Where bytes are kept: folders, and what object stores have instead of them. The only room that knows fsspec."""
