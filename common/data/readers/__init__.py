"""One module per public layout: lists the files of an unpacked archive as items with a patient id."""
