/**
 * Does the work of a CodePipeline job: fetches its inputs, runs the block in the job's directory,
 * pushes its outputs, and reports what became of it. An exception, a time-out, an abort and a build
 * that is no longer a success are reported as a failure, and nothing is pushed.
 *
 * @param job jobId (else CPSTAGE_JOB_ID); workspace (else a directory of this build, which is
 *     removed); fetch and push: lists with more options of these commands
 */
void call(Map job = [:], Closure body) {
    String place = ''
    dir(job.workspace ?: "codepipeline-${env.BUILD_NUMBER}") {
        place = pwd() // in full: the steps of the block may go elsewhere
    }
    List<String> variables = ["CPSTAGE_WORKSPACE=${place}"]
    if (job.jobId) {
        variables << "CPSTAGE_JOB_ID=${job.jobId}"
    }
    withEnv(variables) {
        try {
            cpstageFetch(job.fetch ?: [])
            dir(place) {
                body()
                if (currentBuild.currentResult != 'SUCCESS') {
                    error "the build is ${currentBuild.currentResult}"
                }
                cpstagePush(job.push ?: [])
            }
            cpstage(['report', 'success', '--execution-id', env.BUILD_TAG, '--summary', env.BUILD_URL])
        } catch (Throwable failure) {
            reportFailure(failure)
            throw failure
        } finally {
            if (!job.workspace) {
                dir(place) {
                    deleteDir()
                }
            }
        }
    }
}

private void reportFailure(Throwable failure) {
    String message = "${failure.message ?: failure.class.name}, see ${env.BUILD_URL}"
    try {
        cpstage(['report', 'failure', '--execution-id', env.BUILD_TAG, '--message', message])
    } catch (Throwable other) {
        echo "the failure could not be reported: ${other.message}"
    }
}
