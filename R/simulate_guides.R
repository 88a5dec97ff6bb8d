#' Simulate a guide screen with known truth
#'
#' Draws guide UMI counts of a screen in which it is known which cell carries which guide: to see what a model can do, to
#' choose one, and to plan an experiment.
#'
#' @param screen The name of a screen of [guide_screens()]: where the parameters start from.
#' @param n_cells,n_guides Cells and guides. Whole numbers; NULL is 5,000 x 100.
#' @param ... Other parameters to change, by name, one number each unless said otherwise:
#'   \describe{
#'     \item{moi}{Constructs that a cell receives, on average: a Poisson number. NA is exactly one.}
#'     \item{selected}{TRUE: cells were selected for carrying a construct (a Poisson number above zero).}
#'     \item{share_empty}{Share of cells, 0 to 1, without any construct beyond those.}
#'     \item{share_doublet}{Share of droplets, 0 to 1, that hold two cells.}
#'     \item{min_depth}{Minimum number of guide UMIs of a cell. Cells with fewer are drawn again, so that `n_cells` cells remain.
#'       The default is 0.}
#'     \item{signal_mean, signal_size}{UMIs of a carried guide: mean, and size of the negative binomial (variance = mean +
#'       mean^2 / size; Inf is a Poisson).}
#'     \item{efficiency_spread, capture_spread}{Standard deviation of the log of the signal over guides, over cells.}
#'     \item{capture_gamma}{If TRUE, the captures of cells follow a gamma distribution instead of a log-normal one. Both have
#'       mean 1 and the variance `exp(capture_spread^2) - 1`. The default is FALSE.}
#'     \item{ambient_mean}{Ambient UMIs of a cell, all guides together.}
#'     \item{ambient_size}{Size of the negative binomial of the ambient UMIs of one guide in one cell.}
#'     \item{ambient_cell_size}{Shape of the gamma distribution of ambient UMIs over cells.}
#'     \item{ambient_guide_spread}{Standard deviation of the log ambient share of guides, beyond their abundance.}
#'     \item{ambient_library}{If TRUE, the ambient share of a guide follows its share of the library, which is abundance x
#'       efficiency. Otherwise it follows the abundance alone, which is the default. `ambient_guide_spread` applies to both.}
#'     \item{hopping}{Share of a cell's UMIs, 0 to below 1, that are chimeric: of a guide drawn from the whole library.}
#'     \item{hopping_burst}{Mean number of further UMIs in the burst of a chimeric UMI. The chimeric UMIs of a guide in a cell
#'       are a negative binomial with variance = mean x (1 + `hopping_burst`). The default, 0, is a Poisson.}
#'     \item{abundance_spread}{Standard deviation of the log abundance of constructs. Large: some guides are rare.}
#'     \item{lane_depth, lane_ambient}{Factors on all UMIs, and on ambient UMIs, one value per lane or one for all.}
#'     \item{lane_cells}{Relative numbers of cells of the lanes, one value per lane or one for all. By default cells are spread
#'       evenly over lanes.}
#'     \item{n_empty_droplets}{Number of barcodes without a cell, which follow the cells and are spread over lanes as these are.
#'       They contain ambient UMIs and the chimeric UMIs of these, and carry no guide. The default is 0.}
#'     \item{droplet_ambient}{Factor on the ambient UMIs of empty droplets. The default is 0.05.}
#'     \item{dual}{TRUE: constructs carry two guides.}
#'     \item{recombined}{Share of dual constructs, 0 to 1, that carry the second guide of another construct.}
#'   }
#' @param seed A whole number, 0 or more. The same seed gives the same screen, on any number of threads. R's own random
#'   numbers are neither used nor moved.
#' @inheritParams assign_guides
#'
#' @return An object of class `guide_simulation`, a list with
#'   \describe{
#'     \item{counts}{dgCMatrix, guides x cells. UMIs.}
#'     \item{truth}{data.frame, one row per carried guide: `cell_barcode`, `guide_id`. Carried guides without a UMI are in it.}
#'     \item{lane}{factor. The lane of each barcode.}
#'     \item{guides}{data.frame, one row per guide: `guide_id`, `construct`; `abundance` of the construct; `efficiency`, factor on
#'       the signal; `ambient_share`, `library_share`, its share of ambient and of chimeric UMIs; `prior`, the probability that a
#'       cell carries it, before cells are chosen by `min_depth`.}
#'     \item{cells}{data.frame, one row per barcode: `cell_barcode`, `lane`; `is_cell`, FALSE for an empty droplet; `capture`,
#'       factor on the signal, with the lane's depth, 0 for an empty droplet; `ambient`, `chimeric`, expected UMIs.}
#'     \item{oracle}{dgCMatrix with the pattern of the counts. The posterior probability that the cell carries the guide, to an
#'       observer who knows all of the above and every parameter, but not who carries what. See the section on the observer.}
#'     \item{ceiling}{The highest F1 that the observer reaches: 2 x right / (called + carried). Carried guides without a UMI are
#'       never called. The cut is chosen with the truth at hand, so no other cut of `oracle` does better on this screen.}
#'     \item{ceiling_cut}{The posterior from which on the observer calls for this F1. It is about half of the F1.}
#'     \item{params}{list. Every parameter, with `screen` and `seed`.}
#'   }
#' @section The observer:
#' The observer judges each pair by itself. Comparing the guides of a cell can do better where guides are not carried
#' independently: with `moi = NA`, `selected`, `share_empty`, `share_doublet` or `dual`.
#'
#' Chimeric UMIs depend on the other UMIs of the cell. The observer therefore knows how many UMIs of the other guides are not
#' chimeric.
#'
#' The observer uses the same posteriors when cells are chosen by `min_depth`. Given the count of the pair and the other UMIs of
#' the cell, the choice says nothing about the pair. This holds exactly where guides are carried independently and `hopping` is 0.
#'
#' The observer knows which barcodes are empty droplets. Their posteriors are 0.
#' @section Errors:
#'   `kaichi_error_argument` for an unknown screen or parameter and for a value out of its range; the text names it.
#' @seealso [guide_screens()], [assign_guides()]
#' @examples
#' sim <- simulate_guides("high_moi", n_cells = 500, n_guides = 20)
#' sim
#'
#' # How much of the truth a model finds, and how much of what it finds is true.
#' calls <- assign_guides(sim$counts, model = "umi")
#' found <- paste(calls$pairs$cell_barcode, calls$pairs$guide_id)
#' true <- paste(sim$truth$cell_barcode, sim$truth$guide_id)
#' c(recall = mean(true %in% found), precision = mean(found %in% true))
#'
#' # A screen of one's own: three guides a cell, 20 UMIs each, a tenth of the UMIs chimeric.
#' simulate_guides("easy", moi = 3, signal_mean = 20, hopping = 0.1, n_cells = 500)$ceiling
#' @export
simulate_guides <- function(screen = "easy", n_cells = NULL, n_guides = NULL, ..., seed = 1, n_jobs = NULL) {
  if (!is.character(screen) || length(screen) != 1L || is.na(screen)) {
    abort("argument", "`screen` must be the name of one screen in quotes. guide_screens() lists them.")
  }
  params <- c(list(n_cells = n_cells, n_guides = n_guides), list(...))
  params <- params[!vapply(params, is.null, NA)]
  check_screen_params(params)
  check_number(seed, "seed", 0, 2^53, whole = TRUE)
  check_n_jobs(n_jobs)

  drawn <- rust_simulate_guides(screen, params, seed, n_jobs)
  guide_id <- numbered("guide", length(drawn$construct))
  is_cell <- seq_along(drawn$lane) <= drawn$n_cells
  cell_barcode <- c(numbered("cell", sum(is_cell)), if (!all(is_cell)) numbered("empty", sum(!is_cell)))
  dimnames <- list(guide_id, cell_barcode)
  counts <- sparse_of_rust(drawn$p, drawn$i, drawn$x, lengths(dimnames), dimnames)
  oracle <- counts
  oracle@x <- drawn$oracle
  lanes <- numbered("lane", max(lengths(drawn$params[lane_params])))
  lane <- structure(drawn$lane, levels = lanes, class = "factor")
  structure(
    list(
      counts = counts,
      truth = data.frame(
        cell_barcode = cell_barcode[drawn$truth_cell], guide_id = guide_id[drawn$truth_guide], stringsAsFactors = FALSE
      ),
      lane = lane,
      guides = data.frame(
        guide_id = guide_id,
        construct = numbered("construct", max(drawn$construct))[drawn$construct],
        drawn[c("abundance", "efficiency", "ambient_share", "library_share", "prior")],
        stringsAsFactors = FALSE
      ),
      cells = data.frame(
        cell_barcode = cell_barcode, lane = lane, is_cell = is_cell, drawn[c("capture", "ambient", "chimeric")],
        stringsAsFactors = FALSE
      ),
      oracle = oracle,
      ceiling = drawn$ceiling,
      ceiling_cut = drawn$ceiling_cut,
      params = c(list(screen = screen, seed = seed), screen_params(drawn$params))
    ),
    class = "guide_simulation"
  )
}

#' The named screens of the simulator
#'
#' Eight kinds of screen, from one that every model gets right to those where most fail, for [simulate_guides()].
#'
#' @return A data.frame with one row per screen: `screen` chr, its name; `about` chr, what is hard in it; and a column for every
#'   parameter of [simulate_guides()]. `lane_cells`, `lane_depth` and `lane_ambient` are lists, with one value per
#'   lane.
#' @examples
#' guide_screens()[, c("screen", "about")]
#' @export
guide_screens <- function() {
  screens <- rust_guide_screens()
  table <- data.frame(screen = screens$screen, about = screens$about, stringsAsFactors = FALSE)
  params <- lapply(screens$params, screen_params)
  for (name in names(params[[1L]])) {
    column <- lapply(params, `[[`, name)
    table[[name]] <- if (name %in% lane_params) column else unlist(column)
  }
  table
}

# Numbers of Rust -> what the user gives.
screen_params <- function(params) {
  if (is.nan(params$moi)) params$moi <- NA_real_
  flags <- c("selected", "capture_gamma", "ambient_library", "dual")
  params[flags] <- lapply(params[flags], `==`, 1)
  params
}

# Parameters with one value per lane.
lane_params <- c("lane_cells", "lane_depth", "lane_ambient")

# Types and names; Rust knows the parameters and their ranges.
check_screen_params <- function(params) {
  names <- names(params)
  if (any(names == "")) {
    abort("argument", "simulate_guides() has an argument without a name: give parameters by name, as in moi = 5.")
  }
  twice <- anyDuplicated(names)
  if (twice > 0L) abort("argument", "`", names[twice], "` is given twice.")
  for (name in names) {
    value <- params[[name]]
    if (!(is.numeric(value) || is.logical(value)) || length(value) == 0L || (anyNA(value) && name != "moi")) {
      abort("argument", "`", name, "` must be a number, not ", describe(value), ".")
    }
  }
}

# guide_001, guide_002, ...: padded, so that names sort as they stand.
numbered <- function(what, n) {
  digits <- max(1L, nchar(format(n, scientific = FALSE)))
  sprintf("%s_%0*d", what, digits, seq_len(n))
}

#' @export
print.guide_simulation <- function(x, ...) {
  cat(
    "<guide_simulation> ", big(nrow(x$counts)), " guides x ", big(sum(x$cells$is_cell)), " cells",
    if (!all(x$cells$is_cell)) c(" and ", big(sum(!x$cells$is_cell)), " empty droplets"), ", screen ", x$params$screen,
    ", seed ", format(x$params$seed, scientific = FALSE), "\n",
    "  ", big(nrow(x$truth)), " carried guides, ", big(length(x$counts@x)), " non-zero counts, ", nlevels(x$lane),
    if (nlevels(x$lane) == 1L) " lane\n" else " lanes\n",
    sprintf("  An observer who knows every parameter calls them with F1 %.3f\n", x$ceiling),
    sep = ""
  )
  invisible(x)
}
