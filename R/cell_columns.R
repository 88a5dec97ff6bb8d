#' Columns that other tools expect of the calls
#'
#' One row per cell, with the names and the words that one tool or format wants: ready for `obs`, `colData(x)` or
#' `x@meta.data`.
#'
#' @param calls A `guide_calls` of [assign_guides()] or [decide_guides()].
#' @param format One of `"mixscape"`, `"scperturb"`, `"cellxgene"`, `"pertpy"`, `"igvf"`, `"replogle"`, `"geomux"`; see Formats.
#' @param ... Must be empty.
#' @param guides The guide table, see [read_guide_table()]: a data.frame, or the path of a CSV or TSV, with the columns `guide_id`
#'   and `target`, and optionally `type`, one row per guide; it may have more guides than `calls`, in any order. NULL is the table that `calls` carries as `calls$guides`, if it
#'   has one. Needed by mixscape, scperturb and cellxgene.
#' @param control The controls: a chr of targets, as `"scrambled"`. NULL: guides whose `type` says so (`"non-targeting"`,
#'   `"safe-targeting"`, `"control"` ...), else those whose target is such a word, which a message then says.
#' @param strategy Format cellxgene: what was done to the cells with a targeting guide, one of `"CRISPR activation screen"`,
#'   `"CRISPR interference screen"`, `"CRISPR knockout mutant"`, `"CRISPR knockout screen"`.
#' @param sep What joins several guides or targets of a cell, one string. NULL is that of the format. A name that holds it is an
#'   error, as it could not be told apart from two. Not for cellxgene, igvf and replogle.
#'
#' @return A data.frame with one row per cell, in the order of `calls$cells` and with its barcodes as row names.
#' @section Formats:
#'   \describe{
#'     \item{mixscape}{Seurat's `CalcPerturbSig()` and `RunMixscape()`, and Mixscale: `guide_ID` chr, the guide (several of one
#'       target joined by `|`); `gene` chr, its target, `"NT"` for all controls; `NT` chr, the guide, `"NT"` for controls;
#'       `crispr` chr, `"Perturbed"` or `"NT"`. NA for cells without a guide and for those with two targets, or with a target
#'       and a control: leave them out, as in `x[, !is.na(x$gene)]`, as Mixscape takes no NA.}
#'     \item{scperturb}{`perturbation` chr, the sorted targets joined by `_`, `"control"` if the cell has controls only, NA if it
#'       has no guide; `guide_id` chr, joined by `;`; `nperts` int, targets, controls not counted; `perturbation_type` chr,
#'       `"CRISPR"`, NA without a guide.}
#'     \item{cellxgene}{CELLxGENE schema 7.1.0: `genetic_perturbation_id` chr, the sorted guides joined by `" || "`, `"na"` if
#'       none; `genetic_perturbation_strategy` chr, `strategy`, `"control"` if all guides are controls, `"no perturbations"` if
#'       there is none.}
#'     \item{pertpy}{`assigned_guide` chr, joined by `+`, `"Negative"` if none. pertpy's layer `assigned_guides` is
#'       `t(calls$assigned)`.}
#'     \item{igvf}{`num_expressed_guides` int, guides with UMIs; `total_guide_umis` dbl; `n_guides_per_cell` int, guides called.
#'       The layer `guide_assignment` is `t(calls$assigned)`.}
#'     \item{replogle}{Columns of cell_identities.csv: `cell_barcode` chr; `guide_identity` chr, the call of the highest
#'       confidence, NA if none; `read_count` int and `coverage` dbl, always NA as reads are not known; `UMI_count` int; `gemgroup`
#'       int, the number at the end of the barcode, NA without; `good_coverage` lgl, whether there is a call;
#'       `number_of_cells` int, guides called.}
#'     \item{geomux}{`cell_id` int, from 0; `cell` chr; `moi` int, guides called; `n_umi` dbl, guide UMIs; `assignment` and `umis`
#'       chr, joined by `|`, `""` if none; `fdr` and `log_odds` chr, always `""`, as these are of its test.}
#'   }
#' @section Errors:
#'   `kaichi_error_argument` for an argument that is not as said here and for a format that needs targets and gets none;
#'   `kaichi_error_names` for guides that are not in `guides`, have no target there, or hold the separator.
#' @seealso [write_calls()] for files, [as_seurat()], [as_sce()] and [as_sceptre()] for objects.
#' @examples
#' sim <- simulate_guides("easy", n_cells = 300, n_guides = 10)
#' calls <- assign_guides(sim$counts, model = "umi")
#' guides <- data.frame(guide_id = sim$guides$guide_id)
#' guides$target <- rep(c("GATA1", "non-targeting"), each = 5)
#' head(cell_columns(calls, "mixscape", guides = guides))
#' head(cell_columns(calls, "geomux"))
#' @export
cell_columns <- function(calls, format, ..., guides = NULL, control = NULL, strategy = NULL, sep = NULL) {
  check_no_dots("cell_columns", ...)
  check_calls(calls)
  format <- check_choice(format, "format", names(cell_formats))
  if (!is.null(sep)) {
    check_string(sep, "sep", "what joins several guides, or NULL")
    if (sep == "") abort("argument", "`sep` is \"\": joined guides could not be told apart. Give at least one character.")
    if (format %in% c("cellxgene", "igvf", "replogle")) {
      abort("argument", "`sep` means nothing for the format \"", format, "\", which leaves no choice: leave it out.")
    }
  }
  if (!is.null(strategy) && format != "cellxgene") {
    abort("argument", "`strategy` means nothing for the format \"", format, "\": leave it out.")
  }
  columns <- cell_formats[[format]](calls, guides, control, strategy, sep)
  structure(columns, class = "data.frame", row.names = calls$cells$cell_barcode)
}

# Every format is a function that gives a list of columns.
cell_formats <- list(
  mixscape = function(calls, guides, control, strategy, sep) {
    facts <- guide_facts(calls, guides, control, "The format \"mixscape\"")
    called <- called_pairs(calls)
    sep <- sep_or(sep, "|")
    label <- ifelse(facts$control, "NT", facts$target)
    of_cell <- distinct_by_cell(label[called$guide], called)
    single <- tabulate(of_cell$cell, called$n) == 1L
    gene <- rep(NA_character_, called$n)
    gene[of_cell$cell] <- of_cell$value
    gene[!single] <- NA
    keep <- single[called$cell]
    id <- rownames(calls$counts)[called$guide[keep]]
    guide <- join_by_cell(id, called$cell[keep], called$n, sep, NA_character_)
    list(
      guide_ID = guide, gene = gene, NT = ifelse(gene == "NT", "NT", guide), crispr = ifelse(gene == "NT", "NT", "Perturbed")
    )
  },
  scperturb = function(calls, guides, control, strategy, sep) {
    facts <- guide_facts(calls, guides, control, "The format \"scperturb\"")
    called <- called_pairs(calls)
    none <- tabulate(called$cell, called$n) == 0L
    targeting <- !facts$control[called$guide]
    of_cell <- distinct_by_cell(
      facts$target[called$guide[targeting]], list(cell = called$cell[targeting], n = called$n), sorted = TRUE
    )
    perturbation <- join_by_cell(of_cell$value, of_cell$cell, called$n, sep_or(sep, "_"), "control")
    perturbation[none] <- NA
    list(
      perturbation = perturbation,
      guide_id = join_by_cell(rownames(calls$counts)[called$guide], called$cell, called$n, sep_or(sep, ";"), NA_character_),
      nperts = tabulate(of_cell$cell, called$n),
      perturbation_type = ifelse(none, NA_character_, "CRISPR")
    )
  },
  cellxgene = function(calls, guides, control, strategy, sep) {
    strategy <- check_choice(strategy, "strategy", cellxgene_strategies)
    facts <- guide_facts(calls, guides, control, "The format \"cellxgene\"")
    called <- called_pairs(calls)
    id <- rownames(calls$counts)[called$guide]
    check_separator(id, "||", "guides")
    if ("na" %in% id) {
      abort("names", "A guide is called \"na\", which CELLxGENE reads as no perturbation. Rename it before the calls are made.")
    }
    # "Ascending lexical order", whatever the locale.
    order <- order(called$cell, id, method = "radix")
    targeting <- tabulate(called$cell[!facts$control[called$guide]], called$n) > 0L
    none <- tabulate(called$cell, called$n) == 0L
    list(
      genetic_perturbation_id = join_by_cell(id[order], called$cell[order], called$n, " || ", "na"),
      genetic_perturbation_strategy = ifelse(none, "no perturbations", ifelse(targeting, strategy, "control"))
    )
  },
  pertpy = function(calls, guides, control, strategy, sep) {
    called <- called_pairs(calls)
    id <- rownames(calls$counts)[called$guide]
    list(assigned_guide = join_by_cell(id, called$cell, called$n, sep_or(sep, "+"), "Negative"))
  },
  igvf = function(calls, guides, control, strategy, sep) {
    list(
      num_expressed_guides = as.integer(diff(calls$counts@p)),
      total_guide_umis = unname(Matrix::colSums(calls$counts)),
      n_guides_per_cell = as.integer(diff(calls$assigned@p))
    )
  },
  replogle = function(calls, guides, control, strategy, sep) {
    cells <- calls$cells
    group <- ifelse(grepl("-[0-9]{1,9}$", cells$cell_barcode), sub("^.*-", "", cells$cell_barcode), NA)
    list(
      cell_barcode = cells$cell_barcode, guide_identity = cells$guide_id, read_count = rep(NA_integer_, nrow(cells)),
      UMI_count = cells$umi_count, coverage = rep(NA_real_, nrow(cells)), gemgroup = as.integer(group),
      good_coverage = !cells$is_unassigned, number_of_cells = cells$n_guides_detected
    )
  },
  geomux = function(calls, guides, control, strategy, sep) {
    called <- called_pairs(calls)
    id <- rownames(calls$counts)[called$guide]
    sep <- sep_or(sep, "|")
    check_separator(id, sep, "guides")
    list(
      cell_id = seq_len(called$n) - 1L, cell = calls$cells$cell_barcode, moi = tabulate(called$cell, called$n),
      n_umi = unname(Matrix::colSums(calls$counts)),
      assignment = join_by_cell(id, called$cell, called$n, sep, ""),
      umis = join_by_cell(as.character(called$umi), called$cell, called$n, sep, ""),
      fdr = rep("", called$n), log_odds = rep("", called$n)
    )
  }
)

cellxgene_strategies <- c(
  "CRISPR activation screen", "CRISPR interference screen", "CRISPR knockout mutant", "CRISPR knockout screen"
)

sep_or <- function(sep, default) if (is.null(sep)) default else sep

# Each called pair, by cell and then guide, as positions in the matrices, with its UMIs; `n` cells.
called_pairs <- function(calls) {
  assigned <- calls$assigned
  guide <- assigned@i + 1L
  cell <- rep(seq_len(ncol(assigned)), diff(assigned@p))
  umi <- as.integer(calls$counts@x[match(matrix_places(assigned), matrix_places(calls$counts))])
  list(guide = guide, cell = cell, umi = umi, n = ncol(assigned))
}

# One number for each stored value, by column and row: a double, as there can be more than 2^31.
matrix_places <- function(matrix) rep(seq_len(ncol(matrix)) - 1, diff(matrix@p)) * nrow(matrix) + matrix@i

# The values of a cell without repeats, in their order or sorted.
distinct_by_cell <- function(values, called, sorted = FALSE) {
  codes <- sort(unique(values), method = "radix")
  code <- match(values, codes)
  first <- !duplicated(called$cell * (length(codes) + 1) + code)
  cell <- called$cell[first]
  values <- values[first]
  order <- if (sorted) order(cell, code[first]) else seq_along(cell)
  list(cell = cell[order], value = values[order])
}

# The values of each cell as one string; cells without any get `none`.
join_by_cell <- function(values, cell, n, sep, none) {
  joined <- rep(none, n)
  alone <- (tabulate(cell, n) == 1L)[cell]
  joined[cell[alone]] <- values[alone]
  if (all(alone)) return(joined)
  check_separator(values[!alone], sep, "names")
  several <- split(values[!alone], cell[!alone])
  joined[as.integer(names(several))] <- vapply(several, paste, "", collapse = sep)
  joined
}

check_separator <- function(ids, sep, what) {
  bad <- unique(ids[grepl(sep, ids, fixed = TRUE)])
  if (length(bad) == 0L) return(invisible())
  abort(
    "names", "This format joins the ", what, " of a cell by ", quote_names(sep), ", which is part of ",
    quote_names(bad, 3L), ": they could not be told apart.\n",
    "  Give another `sep`, where the format has a choice, or write one row per pair: write_calls(calls, \"calls.csv\")."
  )
}

# What the guide table says of each guide of the calls: list(target, control, table), in the order of the calls' guides.
# `who` needs it.
guide_facts <- function(calls, guides, control, who) {
  table <- guide_rows(calls, guides)
  if (is.null(table)) {
    abort(
      "argument", who, " needs the target of each guide. Give `guides`, a data.frame with the columns guide_id and target."
    )
  }
  target <- table_column(table, "target")
  if (is.null(target)) {
    abort(
      "argument", "`guides` has no column \"target\", which ", sub("^The", "the", who), " needs. Its columns: ",
      quote_names(names(table), 10L), "."
    )
  }
  is_control <- control_guides(target, table_column(table, "type"), control)
  lost <- which(!is_control & is.na(target))
  if (length(lost) > 0L) {
    abort(
      "names", "`guides` has no target for ", count_of(length(lost), "guide"), ", first ",
      quote_names(rownames(calls$counts)[lost[1L]]), ". Give it one; that of controls is \"non-targeting\"."
    )
  }
  list(target = target, control = is_control, table = table)
}

# The rows of the guide table for the guides of the calls; NULL if there is none.
guide_rows <- function(calls, guides) {
  if (is.null(guides)) guides <- calls$guides
  if (is.null(guides)) return(NULL)
  guides <- named_guide_table(guides)
  # The construct is of no interest here: the names are checked with the guides themselves in its place.
  ids <- check_guide_table(guides, "guide_id")$guide_id
  rows <- guides[match_guides(rownames(calls$counts), ids), , drop = FALSE]
  rows$guide_id <- rownames(calls$counts)
  rownames(rows) <- NULL
  rows
}

# A column of names, NA where there is none; NULL without the column.
table_column <- function(table, name) {
  if (!name %in% names(table)) return(NULL)
  value <- as.character(table[[name]])
  value[!is.na(value) & value == ""] <- NA
  value
}

control_guides <- function(target, type, control) {
  if (!is.null(control)) {
    if (!is.character(control) || length(control) == 0L || anyNA(control)) {
      abort(
        "argument", "`control` must be the targets of the controls, a chr as \"non-targeting\", not ", describe(control), "."
      )
    }
    lost <- setdiff(control, target)
    if (length(lost) > 0L) {
      abort(
        "argument", "`control` names ", quote_names(lost), ", which is no target of `guides`. Its targets: ",
        quote_names(unique(stats::na.omit(target)), 10L), "."
      )
    }
    return(!is.na(target) & target %in% control)
  }
  by_target <- !is.na(target) & is_control_word(target)
  by_type <- rep(NA, length(target))
  if (!is.null(type)) {
    by_type[is_control_word(type)] <- TRUE
    by_type[bare_word(type) == "targeting"] <- FALSE
  }
  found <- ifelse(is.na(by_type), by_target, by_type)
  said <- unique(target[found & is.na(by_type)])
  if (length(said) > 0L) {
    say_choice("Taking the guides of ", quote_names(said), " as controls (", count_of(sum(found), "guide"), ").")
  } else if (!any(found)) {
    say_choice("No guide is a control by its type or target. Name the target of the controls with `control =`.")
  }
  found
}

# "Non-Targeting", "non_targeting_12", "NT", "safe-targeting" ...: what people call controls.
is_control_word <- function(x) {
  words <- "nontarget(ing)?|nt|ntc|safetarget(ing)?|safeharbou?r|noncutting|neg(ative)?(control|ctrl)|control|ctrl|scrambled?"
  !is.na(x) & grepl(paste0("^(", words, ")(control|ctrl|guide)?s?$"), bare_word(x))
}

bare_word <- function(x) gsub("[^a-z]", "", tolower(x))

check_calls <- function(calls) {
  if (inherits(calls, "guide_calls")) return(invisible())
  abort(
    "argument", "`calls` must be a guide_calls, not ", describe_class(calls), ". assign_guides() returns one for a matrix or a ",
    "file; decide_guides(score_guides(x)) for a SingleCellExperiment or Seurat object too."
  )
}

check_choice <- function(value, name, choices) {
  if (is.character(value) && length(value) == 1L && value %in% choices) return(value)
  abort("argument", "`", name, "` must be one of ", quote_names(choices, 20L), ", not ", describe(value), ".")
}

check_no_dots <- function(verb, ...) {
  if (...length() == 0L) return(invisible())
  names <- names(list(...))
  if (is.null(names) || names[1L] == "") abort("argument", "Give ", verb, "() its further arguments by name.")
  abort("argument", verb, "() has no argument `", names[1L], "`. Is it misspelt?")
}
