#' kaichi: CRISPR guide assignment for Perturb-seq
#'
#' A screen yields a sparse guides x cells matrix of UMI counts. kaichi decides which guides each cell received:
#' [assign_guides()] from a file, a matrix, a SingleCellExperiment or a Seurat object; [score_guides()] and
#' [decide_guides()] to fit once and try many thresholds; [guide_models()] for the models and when to use each.
#'
#' @useDynLib kaichi, .registration = TRUE
#' @importFrom methods as is new validObject
#' @importClassesFrom Matrix dgCMatrix
#' @keywords internal
"_PACKAGE"
