#' Read and check a guide table
#'
#' The table of a guide library says what each guide is for. [assign_guides()] and [score_guides()] take it as `guides` and carry
#' it to the results; this reads and checks it alone.
#'
#' @param guides A data.frame, or the path of a CSV or TSV file (gzipped or not, in UTF-8, with a header). One row per guide, with
#'   the column `guide_id` and any of `target`, `construct`, `type` (`"targeting"`, `"non-targeting"`, ...) and `sequence`; other
#'   columns are kept.
#'
#' @return A data.frame with the columns of `guides`; those named above are chr, NA where they are empty. `guide_id` is complete and
#'   unique.
#' @section Errors:
#'   `kaichi_error_argument` for `guides` that is no table or has no column `guide_id`; `kaichi_error_file` and
#'   `kaichi_error_format` for a file that cannot be read; `kaichi_error_names` for guides that are missing, empty or duplicated.
#' @seealso [call_constructs()] and [cell_columns()] for what the table is used for.
#' @examples
#' file <- tempfile(fileext = ".csv")
#' writeLines(c("guide_id,target,type", "guide_001,GATA1,targeting", "guide_002,,non-targeting"), file)
#' read_guide_table(file)
#' unlink(file)
#' @export
read_guide_table <- function(guides) {
  if (is.character(guides) && is.null(dim(guides))) {
    check_string(guides, "guides", "the path of a guide table, or a data.frame")
    guides <- as_data_frame(rust_read_guide_table(path.expand(guides)))
  }
  ids <- check_guide_table(guides, "guide_id")$guide_id
  guides <- as.data.frame(guides)
  rownames(guides) <- NULL
  guides$guide_id <- ids
  for (name in intersect(c("target", "construct", "type", "sequence"), names(guides))) {
    guides[[name]] <- table_column(guides, name)
  }
  guides
}

# What guide_counts() returned, with the rows of the user's guide table in the order of the guides; without one the input's own.
with_guide_table <- function(counts, guides) {
  if (is.null(guides)) return(counts)
  table <- read_guide_table(guides)
  names <- rownames(counts$counts)
  row <- match_guides(names, table$guide_id, "the counts")
  renamed <- which(table$guide_id[row] != names)
  if (length(renamed) > 0L) {
    say_choice(
      "Taking ", quote_names(table$guide_id[row][renamed], 3L), " of `guides` as ", quote_names(names[renamed], 3L),
      " of the counts, where _ and | have become -."
    )
  }
  unknown <- table$guide_id[-row]
  if (length(unknown) > 0L) {
    say_choice(count_of(length(unknown), "guide"), " of `guides` not in the counts, left out: ", quote_names(unknown), ".")
  }
  table <- table[row, , drop = FALSE]
  table$guide_id <- names
  rownames(table) <- NULL
  counts$guides <- table
  counts
}

# Calls with a guide table in the order of their guides, and the target of the guide of each cell. NULL changes nothing.
carry_guides <- function(calls, table) {
  if (is.null(table)) return(calls)
  calls$guides <- table
  target <- table_column(table, "target")
  if (!is.null(target)) calls$cells$target <- target[match(calls$cells$guide_id, table$guide_id)]
  calls
}

without_guide_table <- function(calls) {
  calls$cells$target <- NULL
  calls$guides <- NULL
  calls
}
