/**
 * Claims a waiting job, and returns its id, as in:
 * cpstageClaim(['--category', 'Build', '--provider', 'Jenkins', '--version', '1']).
 *
 * Where no job waits, the result of the build is NOT_BUILT, and the id is ''.
 *
 * @param options options of 'cpstage claim'
 */
String call(List<String> options) {
    String line = cpstage.line(['claim'] + options)
    String id = sh(label: 'cpstage claim', script: line + ' || [ $? -eq 75 ]', returnStdout: true).trim()
    if (!id) {
        currentBuild.result = 'NOT_BUILT'
        currentBuild.description = 'no job waited'
    }
    return id
}
