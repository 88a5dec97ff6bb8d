#' Read and check a guide table
#'
#' The table of a guide library says what each guide is for. [assign_guides()] and [score_guides()] take it as `guides` and carry
#' it to the results; this reads and checks it alone.
#'
#' @param guides A data.frame, or the path of a CSV or TSV file with a header (also with semicolons, gzipped, or in UTF-16 or
#'   Latin-1). One row per guide, with the column `guide_id` and any of `target`, `construct`, `type` (`"targeting"`,
#'   `"non-targeting"`, ...) and `sequence`; other columns are kept. The names that others have for these columns are known, see
#'   Names of columns.
#'
#' @return A data.frame with the columns of `guides`; those named above are chr, NA where they are empty. `guide_id` is complete and
#'   unique.
#' @section Names of columns:
#'   Case, blanks and punctuation do not matter. A column under another name is copied to that of kaichi, with a message:
#'   \describe{
#'     \item{guide_id}{`id` (Cell Ranger's feature reference), `grna_id` (sceptre), `gRNA` (crispat), `sgRNA` (MAGeCK), `sgID_AB`
#'       (Replogle et al.), `protospacer_id`, `guide_name`; in a table without any of these, such as CRISPick's, the sequence.}
#'     \item{target}{`target_gene_name` (Cell Ranger), `intended_target_name` (IGVF), `grna_target` (sceptre), `Target Gene Symbol`
#'       (CRISPick), `gene`, `target_gene`. A table without targets is reported in a message.}
#'     \item{construct}{`vector_id` (sceptre), `construct_id`.}
#'     \item{type}{`guide_type`, `grna_type`.}
#'     \item{sequence}{`spacer` (IGVF), `protospacer`, `sgRNA Sequence` (CRISPick), `targeting_sequence`.}
#'   }
#'   If no guide of the counts is in `guide_id`, but all are in another column, such as the sequence, that is used instead.
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
    read <- rust_read_guide_table(path.expand(guides))
    guides <- as_data_frame(read$columns)
    say_choices(read$choices)
  } else {
    guides <- with_synonyms(guides)
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

# A data.frame with the columns that it has by the names of others, which it keeps. `lacking` says whether a table without targets is
# reported.
with_synonyms <- function(guides, lacking = TRUE) {
  if (!is.data.frame(guides) || length(guides) == 0L) return(guides)
  guides <- as.data.frame(guides)
  found <- rust_guide_columns(names(guides))
  say_choices(if (lacking) found$choices else utils::head(found$choices, length(found$name) > 0L))
  added <- stats::setNames(lapply(found$from, function(at) guides[[at]]), found$name)
  if (length(added) == 0L) guides else cbind(as.data.frame(added, stringsAsFactors = FALSE), guides)
}

# The guide table of functions that check it themselves: read where it is a path, with guide_id where others call it otherwise.
named_guide_table <- function(guides) {
  if (is.character(guides) && is.null(dim(guides))) return(read_guide_table(guides))
  if (is.data.frame(guides) && !"guide_id" %in% names(guides)) with_synonyms(guides, lacking = FALSE) else guides
}

say_choices <- function(choices) if (length(choices) > 0L) say_choice(paste(choices, collapse = "\n"))

# The guide table of a verb, read before the counts, whose guides it may tell; NULL without one.
verb_guide_table <- function(guides) if (!is.null(guides) && !takes_union(guides)) read_guide_table(guides)

# What guide_counts() returned, with the rows of the user's guide table in the order of the guides; without one the input's own.
with_guide_table <- function(counts, table) {
  if (is.null(table)) return(counts)
  names <- rownames(counts$counts)
  table <- by_other_column(table, names)
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

# A table in which guide_id has no guide of the counts, but another column all, such as the sequences: that takes its place.
by_other_column <- function(table, names) {
  if (any(names %in% table$guide_id)) return(table)
  names_all <- vapply(table, function(column) is.character(column) && !anyDuplicated(column[!is.na(column)]) && all(names %in% column), NA)
  if (!any(names_all)) return(table)
  name <- names(table)[names_all][1L]
  say_choice("Finding the guides of the counts in the column ", quote_names(name), " of the guide table, not in guide_id.")
  table <- table[!is.na(table[[name]]), , drop = FALSE]
  table$guide_id <- table[[name]]
  table
}

# Calls with what is known of the sample of each cell, for several files.
carry_samples <- function(calls, samples) {
  if (!is.null(samples)) calls$cells[names(samples)] <- samples
  calls
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
