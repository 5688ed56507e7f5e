"""Does the backdoor survive? Behaviours, mechanisms, sizes, stages of safety training and seeds, in one grid."""
