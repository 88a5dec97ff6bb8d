# Path -> counts. The file's kind is told by its name; a new format is one arm in read_guide_file().

#' @keywords internal
read_guide_file <- function(path, layer = NULL, batch = NULL) {
  file <- rust_read_h5ad(path.expand(path), layer, batch)
  check_names(file$guides, length(file$guides), "guide", "row")
  check_names(file$cells, length(file$cells), "cell", "column")
  counts <- methods::new(
    "dgCMatrix",
    i = file$i, p = file$p, x = file$x, Dim = c(length(file$guides), length(file$cells)),
    Dimnames = list(file$guides, file$cells)
  )
  list(counts = counts, batch = file$batch)
}
